const ON = /^(?:1|t|T|true|TRUE|True)$/
const OFF = /^(?:0|f|F|false|FALSE|False)$/

/**
 * Command lines written for nydusify's Go flag parser, in the form that ours takes: `-name` and `--name` are the same there, also with `=value`, and switches
 * (their long names without dashes in `switches`) take a value only after `=`. One-letter flags, a lone dash and what follows `--` stay as they are.
 */
export function fromGoFlags(args: readonly string[], switches: ReadonlySet<string> = new Set()): string[] {
  const end = args.indexOf('--')
  const head = end < 0 ? args : args.slice(0, end)
  const tail = end < 0 ? [] : args.slice(end)
  return [...head.flatMap((arg) => fromGoFlag(arg, switches)), ...tail]
}

function fromGoFlag(arg: string, switches: ReadonlySet<string>): string[] {
  const long = /^-[A-Za-z][\w-]+(=|$)/.test(arg) ? `-${arg}` : arg
  const [, name = '', value = ''] = /^--([\w-]+)=(.*)$/.exec(long) ?? []
  if (!switches.has(name)) return [long]
  if (ON.test(value)) return [`--${name}`]
  return OFF.test(value) ? [] : [long]
}

/** The value of an environment variable that stands for a switch; Go's words for yes. */
export function switchFromEnvironment(name: string, env: NodeJS.ProcessEnv = process.env): boolean {
  return ON.test(env[name] ?? '')
}

/**
 * Command lines written for nydusify's Go flag parser, in the form that ours takes: `-name` and `--name` are the same there, also with `=value`.
 * One-letter flags and what follows `--` stay as they are.
 */
export function fromGoFlags(args: readonly string[]): string[] {
  const end = args.indexOf('--')
  const head = end < 0 ? args : args.slice(0, end)
  const tail = end < 0 ? [] : args.slice(end)
  return [...head.map((arg) => (/^-[A-Za-z][\w-]+(=|$)/.test(arg) ? `-${arg}` : arg)), ...tail]
}

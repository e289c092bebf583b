/** Switches, whose values Go programs may be told. */
const SWITCHES = ['log-to-stdout', 'shared-daemon', 'enable-stargz', 'enable-nydus-overlayfs'] as const
const TRUE = new Set(['1', 't', 'T', 'true', 'TRUE', 'True'])
const FALSE = new Set(['0', 'f', 'F', 'false', 'FALSE', 'False'])

/** A command line in which switches have no values: `--log-to-stdout=false` is `--no-log-to-stdout`, and one that is off by default is left out. */
export function withoutGoForms(argv: readonly string[]): string[] {
  return argv.flatMap((word) => {
    const [, name, value = ''] = /^--([a-z-]+)=(.*)$/s.exec(word) ?? []
    if (!SWITCHES.some((one) => one === name)) return [word]
    if (TRUE.has(value)) return [`--${name}`]
    if (!FALSE.has(value)) return [word]
    return name === 'log-to-stdout' ? ['--no-log-to-stdout'] : []
  })
}

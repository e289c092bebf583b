/** Milliseconds of the clock that files' times are of, and of the one that counts since the machine's start. */
export interface Clocks {
  readonly wallMs: number
  readonly monotonicMs: number
}

/** What to ask systemd for: `systemctl show containerd --property=…`. */
export const START_PROPERTIES = 'ActiveState,ExecMainStartTimestampMonotonic'
/** Times of files are a little behind the clock. */
const MARGIN_MS = 1000

/**
 * Whether a containerd that runs has read its configuration after that was changed last, at `changedMs`: then a restart would only cut sessions and pulls. `shown`: what systemd tells of its unit. False when that
 * does not tell.
 */
export function hasReadConfiguration(shown: string, changedMs: number, { wallMs, monotonicMs }: Clocks): boolean {
  const values = new Map(shown.split('\n').map((line) => splitOnce(line, '=')))
  const startedUs = Number(values.get('ExecMainStartTimestampMonotonic') ?? 0)
  if (values.get('ActiveState') !== 'active' || !(startedUs > 0)) return false
  const startedMs = wallMs - (monotonicMs - startedUs / 1000)
  return startedMs > changedMs + MARGIN_MS
}

function splitOnce(line: string, at: string): [string, string] {
  const index = line.indexOf(at)
  return index < 0 ? [line, ''] : [line.slice(0, index), line.slice(index + 1)]
}

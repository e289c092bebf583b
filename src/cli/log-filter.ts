/** From nothing to everything. */
const LEVELS = ['off', 'error', 'warn', 'info', 'debug', 'trace'] as const

/** What of its log a program tells, as the environment has it; beside `--log-level`, which holds too. */
export interface LogFilter {
  readonly most: (typeof LEVELS)[number]
  /** Only lines in which it is found. */
  readonly text: RegExp | undefined
}

/**
 * Reads `RUST_LOG` as the original's log does: `LEVEL`, `MODULE`, `MODULE=LEVEL`, with commas between, and `/TEXT` behind them, a regular expression. A module is the beginning of a module's name; the longest one
 * counts, and who is not named is off. What cannot be read is ignored, all of it. All lines of a program of ours are of one module, which has the program's name.
 */
export function logFilter(module: 'nydusd' | 'nydus_image', spec = process.env['RUST_LOG']): LogFilter | undefined {
  if (spec === undefined) return undefined
  const [modules = '', text, ...more] = spec.split('/')
  if (more.length > 0) return undefined
  let [most, named]: [LogFilter['most'], number] = ['off', -1]
  for (const part of modules.split(',').map((one) => one.trim())) {
    if (part === '') continue
    const rule = ruleOf(part)
    if (rule === undefined) return undefined
    if (!module.startsWith(rule.module) || rule.module.length <= named) continue
    most = rule.most
    named = rule.module.length
  }
  try {
    return { most, text: text === undefined ? undefined : new RegExp(text) }
  } catch {
    return undefined // as the original: no filter at all
  }
}

function ruleOf(part: string): { module: string; most: LogFilter['most'] } | undefined {
  const [name = '', level, ...more] = part.split('=').map((one) => one.trim())
  if (more.length > 0) return undefined
  if (level === undefined || level === '') {
    if (/\s/.test(name)) return undefined
    const most = level === undefined ? levelOf(name) : undefined
    return most === undefined ? { module: name, most: 'trace' } : { module: '', most }
  }
  const most = levelOf(level)
  return most === undefined ? undefined : { module: name, most }
}

function levelOf(text: string): LogFilter['most'] | undefined {
  return LEVELS.find((level) => level === text.toLowerCase())
}

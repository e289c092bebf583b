/** Command lines of the project's own scripts. `--help` prints the usage and ends with 0; what cannot be meant is told with it, and ends with 2. */
import { type ParseArgsConfig, parseArgs } from 'node:util'

/** Of one script. */
export class ScriptArguments {
  readonly #name: string
  readonly #usage: string

  /** `usage`: as people would write the command, and a line for each thing that it takes. */
  constructor(name: string, usage: string) {
    this.#name = name
    this.#usage = usage
  }

  /** What the process was started with, of these options. */
  read<const T extends NonNullable<ParseArgsConfig['options']>>(
    options: T,
    args: string[] = process.argv.slice(2),
  ): ReturnType<typeof parseArgs<{ options: T; allowPositionals: true }>> {
    if (args.includes('--help') || args.includes('-h')) {
      console.log(this.#usage)
      process.exit(0)
    }
    try {
      return parseArgs({ args, options, allowPositionals: true })
    } catch (error) {
      return this.refuse((error as Error).message)
    }
  }

  /** A number above 0, or the fallback where nothing is written. */
  number(what: string, text: string | undefined, fallback: number): number {
    if (text === undefined) return fallback
    const value = Number(text)
    return value > 0 ? value : this.refuse(`${what} ${JSON.stringify(text)} is no number above 0`)
  }

  refuse(why: string): never {
    console.error(`${this.#name}: ${why}\n${this.#usage}`)
    return process.exit(2)
  }
}

import { parseArgs } from 'node:util'

/** What the demo was asked to do. */
export interface DemoOptions {
  /** An image to take instead of the one that the demo makes. */
  readonly image: string | undefined
  /** What to run in it; empty = what the image says. */
  readonly command: readonly string[]
  readonly bitsPerSecond: number
  readonly roundTripMs: number
  /** The whole image is fetched behind the reads. */
  readonly prefetch: boolean
  readonly json: boolean
}

export const HELP = `npm run demo -- [IMAGE] [options] [-- COMMAND...]

Starts a container image twice over a slow network: by a plain pull, and lazily. Prints one table.

  IMAGE                 an image of any registry, REGISTRY/NAME:TAG (default: one made here, of this package and its runtime)
  COMMAND               what to run in it (default: what the image says). It is ready when it prints a line or ends.
  --bandwidth MBIT      of the network, Mbit/s (default 100)
  --rtt MS              its round trip, ms (default 20)
  --prefetch            the lazy image is fetched whole behind the reads (default: only what is read, and what is likely to be next)
  --json                print one JSON object instead of the table
  --help                this text
`

/** Parses the command line. Throws with a line that says what is wrong. */
export function parseOptions(args: readonly string[]): DemoOptions | 'help' {
  const end = args.indexOf('--')
  const { values, positionals } = parseArgs({
    args: end < 0 ? [...args] : args.slice(0, end),
    allowPositionals: true,
    options: {
      bandwidth: { type: 'string', default: '100' },
      rtt: { type: 'string', default: '20' },
      prefetch: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h', default: false },
    },
  })
  if (values.help) return 'help'
  const [image, extra] = positionals
  if (extra !== undefined)
    throw new Error(`"${extra}" is one image too many; what to run in the image goes behind "--": IMAGE -- ${extra}`)
  return {
    image,
    command: end < 0 ? [] : args.slice(end + 1),
    bitsPerSecond: numberOf('--bandwidth', values.bandwidth, 0.1, 100_000) * 1e6,
    roundTripMs: numberOf('--rtt', values.rtt, 0, 5000),
    prefetch: values.prefetch,
    json: values.json,
  }
}

function numberOf(flag: string, text: string, least: number, most: number): number {
  const value = Number(text)
  if (text.trim() === '' || !Number.isFinite(value) || value < least || value > most)
    throw new Error(`${flag} must be a number from ${least} to ${most}, not "${text}"`)
  return value
}

import { setTimeout as sleep } from 'node:timers/promises'
import { ClientError, type NydusdClient } from './client.ts'
import { type CommonFlags, secondsOf } from './commands.ts'
import { type Sample, takeSample } from './sample.ts'
import { Screen } from './screen.ts'
import { tableLines } from './table.ts'

export interface TopFlags extends CommonFlags {
  readonly interval?: string
  readonly once?: boolean
}

const DEFAULT_SECONDS = 2
const MAX_PAUSE_MS = 2 ** 31 - 1

/**
 * Shows what a daemon does, again and again on a terminal, once elsewhere and with `--once`; as JSON a line a look. Throws ClientError when the daemon
 * does not answer at the first look; later it is waited for.
 */
export async function top(client: NydusdClient, flags: TopFlags, signal: AbortSignal): Promise<void> {
  const isJson = flags.json === true || flags.raw === true
  const isLive = process.stdout.isTTY && !isJson
  const pauseMs = Math.min(
    1000 * (flags.interval === undefined ? DEFAULT_SECONDS : secondsOf(flags.interval)),
    MAX_PAUSE_MS,
  )
  const first = await takeSample(client)
  if (isJson) return await jsonLines(client, first, flags, pauseMs, signal)
  if (!isLive || flags.once === true) {
    process.stdout.write(`${tableLines(first, undefined, Number.POSITIVE_INFINITY).join('\n')}\n`)
    return
  }
  await live(client, first, pauseMs, signal)
}

/** One line, or one a look when an interval was asked for. */
async function jsonLines(
  client: NydusdClient,
  first: Sample,
  flags: TopFlags,
  pauseMs: number,
  signal: AbortSignal,
): Promise<void> {
  process.stdout.write(`${JSON.stringify(first)}\n`)
  while (flags.interval !== undefined && flags.once !== true) {
    await sleep(pauseMs, undefined, { signal })
    process.stdout.write(`${JSON.stringify(await takeSample(client))}\n`)
  }
}

async function live(client: NydusdClient, first: Sample, pauseMs: number, signal: AbortSignal): Promise<void> {
  using screen = new Screen()
  const ended = AbortSignal.any([signal, screen.quit])
  let before: Sample | undefined
  let now = first
  let trouble = ''
  for (;;) {
    screen.draw([...tableLines(now, before, screen.width), '', ...(trouble === '' ? [] : [trouble]), 'q quits'])
    try {
      await sleep(pauseMs, undefined, { signal: ended })
    } catch {
      if (screen.quit.aborted) return // the user has seen enough
      throw signal.reason
    }
    try {
      const next = await takeSample(client)
      ;[before, now, trouble] = [now, next, '']
    } catch (error) {
      if (!(error instanceof ClientError)) throw error
      trouble = error.message
    }
  }
}

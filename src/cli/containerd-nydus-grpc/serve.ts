import { runSnapshotter } from '../../snapshotter/index.ts'
import { type Flags, readSettings } from '../../snapshotter/settings/index.ts'
import { endNow } from '../output.ts'

/** Serves containerd until SIGINT or SIGTERM, which end it in order; a second one ends the process at once, with exit code 1. */
export async function serve({ config, flags }: { config: string | undefined; flags: Flags }): Promise<void> {
  const stop = new AbortController()
  const onSignal = (): void => {
    if (stop.signal.aborted) void endNow(1)
    else stop.abort()
  }
  process.on('SIGINT', onSignal)
  process.on('SIGTERM', onSignal)
  try {
    await runSnapshotter(readSettings(config, flags), stop.signal)
  } finally {
    process.off('SIGINT', onSignal)
    process.off('SIGTERM', onSignal)
  }
}

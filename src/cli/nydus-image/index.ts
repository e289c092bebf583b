/** `nydus-image`: builds, merges, checks and inspects RAFS images, with the original's command line. */
import { endNow } from '../output.ts'
import { main } from './main.ts'

/** A process that can end by itself does so long before. */
const STUCK_MS = 500

async function run(): Promise<void> {
  await main(process.argv.slice(2))
  // What is left may be a read of a pipe whose other end sleeps.
  setTimeout(() => void endNow(Number(process.exitCode ?? 0)), STUCK_MS).unref()
}

void run()

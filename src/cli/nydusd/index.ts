/** `nydusd`: mounts images by FUSE, with the original's command line. */
import { startServingThread } from '../../daemon/serving-thread/index.ts'

/** Words after which nothing is mounted. */
const ASKING = new Set(['-h', '--help', '-V', '--version', 'completion'])
/** Commands that serve without a FUSE mount. */
const SERVICES = new Set(['virtiofs', 'uffd', 'nbd', 'singleton'])

async function run(argv: readonly string[]): Promise<void> {
  const serves = !SERVICES.has(argv[0] ?? '') && !argv.some((word) => ASKING.has(word))
  if (serves) startServingThread()
  const { main } = await import('./main.ts')
  await main(argv)
  // Nothing was mounted. The thread may be in the middle of loading a native module, which aborts the process when its thread is ended then.
  if (serves) await endUnserved()
}

async function endUnserved(): Promise<void> {
  const { exitNow, KernelError } = await import('../../kernel/index.ts')
  try {
    exitNow(Number(process.exitCode ?? 0))
  } catch (error) {
    if (!(error instanceof KernelError)) throw error // where there is no such module, no thread loads it
  }
}

void run(process.argv.slice(2))

/** `nydusd`: mounts images by FUSE, with the original's command line. */
import { startServingThread } from '../../daemon/serving-thread/index.ts'

/** Words after which nothing is mounted. */
const ASKING = new Set(['-h', '--help', '-V', '--version', 'completion'])
/** Commands that serve without a FUSE mount. */
const SERVICES = new Set(['virtiofs', 'uffd', 'nbd', 'singleton'])

async function run(argv: readonly string[]): Promise<void> {
  if (!SERVICES.has(argv[0] ?? '') && !argv.some((word) => ASKING.has(word))) startServingThread()
  const { main } = await import('./main.ts')
  await main(argv)
}

void run(process.argv.slice(2))

import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { readMountInfo } from '../../src/kernel/index.ts'
import type { Outcome } from './main.ts'
import { excludedCases, type Place } from './places.ts'

/** Runs the cases of `xfstests-cases.txt`; the checkout must be built (`make` in it). */
export async function runXfstests(checkout: string, place: Place): Promise<Outcome> {
  if (!existsSync(join(checkout, 'ltp/fsstress'))) throw new Error(`${checkout} is not built: run "make" in it`)
  const excluded = excludedCases('xfstests', place.mode)
  const cases = readFileSync(join(import.meta.dirname, 'xfstests-cases.txt'), 'utf8')
    .split(/\s+/)
    .filter((name) => name !== '' && !excluded.has(name))
  const { config, undo } = configure(place)
  const outcome = { passed: 0, failed: [] as string[], excluded: excluded.size }
  try {
    for (const name of cases) {
      const line = await runCase(checkout, name, { config, folder: place.folder })
      if (line.includes('[not run]')) console.log(`  ${line}`)
      else if (/ {2,}\d+s$/.test(line)) outcome.passed++
      else outcome.failed.push(line)
    }
    return outcome
  } finally {
    undo()
  }
}

/** Gives the line that tells of the case: `generic/001  3s`, `generic/003  [not run] why`, `generic/005  - output mismatch …`. One run a case: after a failure the suite unmounts what it cannot mount again. */
async function runCase(
  checkout: string,
  name: string,
  { config, folder }: { config: string; folder: string },
  triesLeft = 5,
): Promise<string> {
  const others = (await readMountInfo()).filter(({ source, at }) => source === 'rafs' && !at.startsWith(folder))
  const check = spawn('unshare', ['--mount', 'sh', '-c', ALONE, 'sh', ...others.map(({ at }) => at), '--', name], {
    cwd: checkout,
    env: { ...process.env, HOST_OPTIONS: config },
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  let output = ''
  check.stdout.on('data', (part: Buffer) => (output += part.toString()))
  await once(check, 'close')
  const line = output.split('\n').find((text) => text.startsWith(`${name} `))
  // another session came between the look at the mount table and the start
  if (line === undefined && triesLeft > 0) return await runCase(checkout, name, { config, folder }, triesLeft - 1)
  if (line === undefined) throw new Error(`check told nothing that makes sense:\n${output}`)
  return line.trim().replace(/ \d+s \.\.\. /, ' ')
}

/** The suite knows places by the names of their devices, which other sessions of nydusd have too: in a mount table of its own it does not see them. */
const ALONE = 'while [ "$1" != -- ]; do umount -l "$1"; shift; done; shift; exec ./check "$@"'

/** The places in the suite's own words. For the kernel's overlayfs the suite mounts by itself, over the layer that it is given. */
function configure({ mode, folder, at, lower }: Place): { config: string; undo: () => void } {
  const config = join(folder, 'local.config')
  const results = join(folder, 'results')
  mkdirSync(results)
  if (mode !== 'overlayfs') {
    writeFileSync(config, `export TEST_DEV=rafs TEST_DIR=${at} FSTYP=fuse RESULT_BASE=${results}\n`)
    return { config, undo: () => undefined }
  }
  const base = join(folder, 'base')
  for (const name of ['', 'ovl-lower', 'ovl-upper', 'ovl-work', 'ovl-mnt']) mkdirSync(join(base, name))
  execFileSync('mount', ['--bind', lower, join(base, 'ovl-lower')])
  writeFileSync(config, `export TEST_DEV=${base} TEST_DIR=${base}/ovl-mnt FSTYP=overlay RESULT_BASE=${results}\n`)
  return {
    config,
    undo: () => {
      for (const name of ['ovl-mnt', 'ovl-lower'])
        try {
          execFileSync('umount', ['-l', join(base, name)], { stdio: 'ignore' })
        } catch {
          // the suite has unmounted it
        }
    },
  }
}

/** Runs suites of others for POSIX file systems against nydusd. See CONTRIBUTING.md, "Suites of others". */
import { rmSync } from 'node:fs'
import { ScriptArguments } from '../script-arguments.ts'
import { type Mode, MODES, prepare } from './places.ts'
import { runPjdfstest } from './pjdfstest.ts'
import { runXfstests } from './xfstests.ts'

/** What one suite found in one mode. */
export interface Outcome {
  readonly passed: number
  readonly excluded: number
  /** Names of cases that failed and are not excluded. */
  readonly failed: readonly string[]
}

const line = new ScriptArguments(
  'posix',
  `sh scripts/node.sh test/posix/main.ts [options]

Runs suites of others for POSIX file systems against nydusd, as root. See CONTRIBUTING.md, "Suites of others".

  --pjdfstest CHECKOUT  runs all of it
  --xfstests CHECKOUT   a built one: runs the cases of test/posix/xfstests-cases.txt
  --mode MODE           ${MODES.join(', ')}; may be given more than once (default: all)
  --nydusd PROGRAM      instead of the sources
  --help                this text`,
)
const { values, positionals } = line.read({
  pjdfstest: { type: 'string' },
  xfstests: { type: 'string' },
  mode: { type: 'string', multiple: true },
  nydusd: { type: 'string' },
})
const [extra] = positionals
if (extra !== undefined) line.refuse(`what is ${JSON.stringify(extra)}?`)
const modes = (values.mode ?? MODES) as Mode[]
const unknown = modes.find((mode) => !MODES.includes(mode))
if (unknown !== undefined) line.refuse(`there is no mode ${JSON.stringify(unknown)}`)
if (values.pjdfstest === undefined && values.xfstests === undefined)
  line.refuse('give --pjdfstest or --xfstests with the path of a checkout')
let failures = 0
for (const mode of modes) {
  if (values.pjdfstest !== undefined) await run('pjdfstest', mode, values.pjdfstest, runPjdfstest)
  if (values.xfstests !== undefined) await run('xfstests', mode, values.xfstests, runXfstests)
}
process.exitCode = failures === 0 ? 0 : 1

async function run(
  suite: string,
  mode: Mode,
  checkout: string,
  act: (checkout: string, place: Awaited<ReturnType<typeof prepare>>) => Promise<Outcome>,
): Promise<void> {
  const place = await prepare(mode, values.nydusd)
  try {
    const { passed, excluded, failed } = await act(checkout, place)
    failures += failed.length
    console.log(`${suite} ${mode}: ${passed} passed, ${failed.length} failed, ${excluded} excluded`)
    for (const name of failed) console.log(`  ${name}`)
  } finally {
    await place.end()
    rmSync(place.folder, { recursive: true, force: true })
  }
}

/** Damaged input for each parser: see CONTRIBUTING.md, "Damaged input". */
import { readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ScriptArguments } from '../script-arguments.ts'
import { judged } from './run.ts'
import { TARGETS } from './targets.ts'
import { type FoundInput, fuzzInThread } from './thread.ts'

const AT_ONCE = 2
const DEFAULT_SECONDS = 60

const line = new ScriptArguments(
  'fuzz',
  `npm run fuzz -- [TARGET…] [options]

Damages a small corpus and gives it to parsers; a find is kept as a file. See CONTRIBUTING.md, "Damaged input".

  TARGET        ${Object.keys(TARGETS).join(', ')} (default: all)
  --seconds S   for each target (default ${DEFAULT_SECONDS}, or FUZZ_SECONDS; no limit with --runs)
  --runs N      inputs for each target (default: no limit)
  --seed N      the same one gives the same first inputs (default 1)
  --input FILE  reads a find again, in this thread
  --help        this text`,
)
const { values, positionals } = line.read({
  seconds: { type: 'string' },
  runs: { type: 'string' },
  seed: { type: 'string', default: '1' },
  input: { type: 'string' },
})
const targets = positionals.length > 0 ? positionals : Object.keys(TARGETS)
for (const name of targets) if (TARGETS[name] === undefined) line.refuse(`there is no target ${JSON.stringify(name)}`)

if (values.input === undefined) await fuzzAll()
else await readOne(values.input)

/** Two at a time; the next begins when one is done. */
async function fuzzAll(): Promise<void> {
  const runs = line.number('--runs', values.runs, Number.POSITIVE_INFINITY)
  const limits = {
    runs,
    seconds: line.number(
      '--seconds',
      values.seconds ?? process.env['FUZZ_SECONDS'],
      Number.isFinite(runs) ? Number.POSITIVE_INFINITY : DEFAULT_SECONDS,
    ),
    seed: line.number('--seed', values.seed, 1),
    module: new URL('targets.ts', import.meta.url).href,
  }
  const waiting = [...targets]
  const next = async (): Promise<void> => {
    for (let target = waiting.shift(); target !== undefined; target = waiting.shift()) {
      const answer = await fuzzInThread({ ...limits, target })
      if ('find' in answer) report(target, answer.find)
      else {
        const { result } = answer
        const rate = Math.round(result.runs / result.seconds)
        const share = Math.round((100 * result.refused) / result.runs)
        console.log(
          `${target.padEnd(12)} ${result.runs} inputs, ${rate} a second, ${share} % refused; ${result.learned} kept, ${result.functions} functions reached, ${result.unreachedBlocks} blocks in them not`,
        )
      }
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, next))
}

function report(target: string, { what, input, stack }: FoundInput): void {
  const path = join(tmpdir(), `fuzz-${target}-${Date.now()}.bin`)
  writeFileSync(path, input)
  console.error(
    `${target}: an input of ${input.length} bytes ${what}\n${stack}\nnpm run fuzz -- ${target} --input ${path}`,
  )
  process.exitCode = 1
}

/** Reads an input that was found, here, so that a debugger sees it. */
async function readOne(path: string): Promise<void> {
  for (const name of targets) {
    const target = TARGETS[name]
    if (target !== undefined) console.log(name, await judged(target, readFileSync(path)))
  }
}

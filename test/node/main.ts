/** `npm run node-test [-- OPTION…]`: a real node, tried by what the kubelet, ctr and Docker do. */
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { ScriptArguments } from '../script-arguments.ts'
import { CASES } from './cases.ts'
import type { NodeCase } from './case.ts'
import { DebianPackages } from './debian.ts'
import { Images } from './images.ts'
import type { Programs } from './node.ts'
import { endWorlds, runCase } from './run-cases.ts'
import { findRuntime, type Runtime, RUNTIMES } from './runtimes.ts'
import { whyNoNode } from './why-no-node.ts'

const root = join(import.meta.dirname, '../..')
const line = new ScriptArguments(
  'node-test',
  `npm run node-test -- [options]

Runs containers from our images on private nodes, by what the kubelet, ctr and Docker do. See test/node/README.md.

  --only NAME[,NAME]    the cases whose names begin so (default: all)
  --containerd NAME[,…] ${RUNTIMES.join(', ')}, or the absolute path of a folder with containerd and runc (default: all but folders)
  --short               the quick cases, with the machine's containerd
  --snapshotter PROGRAM instead of bin/containerd-nydus-grpc
  --nydusd PROGRAM      instead of bin/nydusd
  --logs FOLDER         where logs of failures go
  --list                prints the cases and ends
  --help                this text`,
)

interface Chosen {
  readonly cases: readonly NodeCase[]
  readonly runtimes: readonly string[]
  readonly programs: Programs
  /** Where logs of failures go. */
  readonly logs: string
}

/** Exits with 2 for what cannot be meant. */
function chosen(): Chosen {
  const { values, positionals } = line.read({
    only: { type: 'string' },
    containerd: { type: 'string' },
    short: { type: 'boolean', default: false },
    snapshotter: { type: 'string', default: join(root, 'bin/containerd-nydus-grpc') },
    nydusd: { type: 'string', default: join(root, 'bin/nydusd') },
    logs: { type: 'string', default: join(tmpdir(), 'nydus-node-test') },
    list: { type: 'boolean', default: false },
  })
  const [extra] = positionals
  if (extra !== undefined) line.refuse(`what is ${JSON.stringify(extra)}? Cases are named by --only`)
  if (values.list) {
    for (const { name, title } of CASES) console.log(`${name.padEnd(16)} ${title}`)
    process.exit(0)
  }
  const programs = { snapshotter: resolve(values.snapshotter), nydusd: resolve(values.nydusd) }
  const odd = values.containerd?.split(',').find((name) => !name.startsWith('/') && !RUNTIMES.includes(name))
  if (odd !== undefined) line.refuse(`--containerd ${odd} is none of ${RUNTIMES.join(', ')} and no absolute path`)
  for (const program of Object.values(programs)) if (!existsSync(program)) line.refuse(`there is no ${program}`)
  return {
    cases: casesNamed(values.only?.split(','), values.short),
    runtimes: values.containerd?.split(',') ?? (values.short ? ['system'] : RUNTIMES),
    programs,
    logs: resolve(values.logs),
  }
}

/** Each name stands for all cases that it begins. */
function casesNamed(names: readonly string[] | undefined, isShort: boolean): readonly NodeCase[] {
  const unknown = names?.find((name) => !CASES.some((one) => one.name.startsWith(name)))
  if (unknown !== undefined) line.refuse(`there is no case ${JSON.stringify(unknown)}; --list shows them`)
  return CASES.filter((one) =>
    names === undefined ? !isShort || one.isShort === true : names.some((name) => one.name.startsWith(name)),
  )
}

const counts = { passed: 0, failed: 0, skipped: 0 }
const WORDS = { passed: 'ok  ', failed: 'FAIL', skipped: 'skip' } as const

async function runAll({ cases, runtimes, programs, logs }: Chosen): Promise<void> {
  const packages = new DebianPackages(join(root, '.setup/debian'))
  const folder = mkdtempSync(join(tmpdir(), 'node-images-'))
  try {
    await using images = await Images.start(folder)
    const end = async (): Promise<void> => {
      await endWorlds()
      await images[Symbol.asyncDispose]()
      rmSync(folder, { recursive: true, force: true })
      process.exit(130)
    }
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => void end())
    console.log(
      `snapshotter ${programs.snapshotter}\nnydusd      ${programs.nydusd}\nregistry    ${images.registry.program}`,
    )
    for (const name of runtimes) {
      const runtime = await findRuntime(name, packages)
      if (typeof runtime === 'string') skipAll(name, cases, runtime)
      else await runOn(runtime, { cases, images, programs, logs })
    }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

function skipAll(name: string, cases: readonly NodeCase[], reason: string): void {
  console.log(`\ncontainerd of ${name}: skip, ${reason}`)
  counts.skipped += cases.length
}

interface Run {
  readonly cases: readonly NodeCase[]
  readonly images: Images
  readonly programs: Programs
  readonly logs: string
}

async function runOn(runtime: Runtime, { cases, images, programs, logs }: Run): Promise<void> {
  console.log(`\ncontainerd ${runtime.version}`)
  for (const one of cases) {
    const { outcome, text, logs: said } = await runCase(one, { runtime, images, programs })
    counts[outcome] += 1
    console.log(`${WORDS[outcome]} ${one.name}: ${text}`)
    if (outcome !== 'failed') continue
    mkdirSync(logs, { recursive: true })
    const file = join(logs, `${runtime.version}-${one.name}.log`)
    writeFileSync(file, `${text}\n${said}\n`)
    console.log(`     logs: ${file}`)
  }
}

const wanted = chosen()
const reason = whyNoNode()
if (reason !== undefined) {
  console.log(`node-test: skipped, ${reason}\n0 passed, 0 failed, ${wanted.cases.length} skipped`)
} else {
  await runAll(wanted)
  console.log(`\n${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`)
  process.exitCode = counts.failed === 0 ? 0 : 1
}

/** Cases as tests of node:test, with the machine's containerd. */
import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import type { NodeCase } from './case.ts'
import { DebianPackages } from './debian.ts'
import { Images } from './images.ts'
import type { Programs } from './node.ts'
import { runCase } from './run-cases.ts'
import { findRuntime, type Runtime } from './runtimes.ts'
import { whyNoNode } from './why-no-node.ts'

const root = join(import.meta.dirname, '../..')
const TEST_MS = 200_000

/** A program of the build. */
export function built(tool: string): string {
  return join(root, 'bin', tool)
}

/** Why a case cannot be tried here, or false. */
export function whyNoTest({ snapshotter, nydusd }: Programs): string | false {
  for (const program of [snapshotter, nydusd]) {
    if (!existsSync(program)) return `there is no ${program}`
    const bundle = program.replace(join(root, 'bin'), join(root, 'dist'))
    if (bundle !== program && !existsSync(`${bundle}.cjs`)) return 'dist/ is not built (npm run build)'
  }
  return whyNoNode() ?? false
}

/** Adds a test for each case; `skip` says why none of them runs. */
export function testCases(cases: readonly NodeCase[], programs: Programs, skip: string | false): void {
  let folder = ''
  let images: Images
  let runtime: Runtime
  before(async () => {
    if (skip !== false) return
    folder = mkdtempSync(join(tmpdir(), 'node-images-'))
    images = await Images.start(folder)
    const found = await findRuntime('system', new DebianPackages(folder))
    if (typeof found === 'string') throw new Error(found)
    runtime = found
  })
  after(async () => {
    if (skip !== false) return
    await images[Symbol.asyncDispose]()
    rmSync(folder, { recursive: true, force: true })
  })
  for (const one of cases) {
    test(one.title, { skip, timeout: TEST_MS }, async (t) => {
      const { outcome, text, logs } = await runCase(one, { runtime, images, programs })
      if (outcome === 'skipped') return t.skip(text)
      assert.equal(outcome, 'passed', `${text}\n${logs}`)
    })
  }
}

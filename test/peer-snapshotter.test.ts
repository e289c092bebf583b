/** The original's containerd-nydus-grpc, unmodified, over our nydusd, under a real containerd; NYDUS_PEER_DIR names the folder with it. */
import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { CASES } from './node/cases.ts'
import { DebianPackages } from './node/debian.ts'
import { Images } from './node/images.ts'
import { runCase } from './node/run-cases.ts'
import { findRuntime, type Runtime } from './node/runtimes.ts'
import { whyNoNode } from './node/why-no-node.ts'

const peers = process.env['NYDUS_PEER_DIR'] ?? ''
const programs = {
  snapshotter: join(peers, 'containerd-nydus-grpc'),
  nydusd: join(import.meta.dirname, '../bin/nydusd'),
}
const skip = whyNoPeer() ?? whyNoNode() ?? false

function whyNoPeer(): string | undefined {
  if (peers === '') return 'NYDUS_PEER_DIR is not set'
  if (!existsSync(programs.snapshotter)) return `no containerd-nydus-grpc in ${peers}`
  return existsSync(join(import.meta.dirname, '../dist/nydusd.cjs')) ? undefined : 'dist/ is not built (npm run build)'
}

let folder = ''
let images: Images
let runtime: Runtime

before(async () => {
  if (skip !== false) return
  folder = mkdtempSync(join(tmpdir(), 'peer-images-'))
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

for (const one of CASES.filter(({ name }) => /^(?:deaths|given-back)-/.test(name))) {
  test(one.title, { skip, timeout: 180_000 }, async (t) => {
    const { outcome, text, logs } = await runCase(one, { runtime, images, programs })
    if (outcome === 'skipped') return t.skip(text)
    assert.equal(outcome, 'passed', `${text}\n${logs}`)
  })
}

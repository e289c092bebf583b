/** The image of ourselves, which a cluster's nodes pull before anything of ours runs there. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { writeLayout } from '../../../scripts/package/oci.ts'
import { pushLayout } from '../../../scripts/package/push.ts'
import { readManifest } from '../../../scripts/package/tree.ts'
import type { NodeCase, World } from '../case.ts'
import { isEmptied, isStopped } from '../emptied.ts'

const root = join(import.meta.dirname, '../../..')
const TOOLS = Object.keys(readManifest(root).bin)

export const OWN_IMAGE_CASES: readonly NodeCase[] = [
  {
    name: 'own-image',
    title: 'the image of ourselves is pulled and run as an ordinary one; its tools start in a pod, and build an image',
    run: runsOurselves,
  },
]

async function runsOurselves(world: World): Promise<void> {
  const node = await world.start({ mode: 'shared', recover: 'none' })
  const reference = `${world.images.registry.host}/tools/nydus-node:own`
  await pushOwn(reference)
  await node.cri.pull(reference)
  const pod = await node.cri.runPod()
  const id = await node.cri.start(pod, reference, ['/bin/sleep', '1000'])
  for (const tool of TOOLS) assert.match(await node.cri.exec(id, `${tool} --version`), /\d+\.\d+\.\d+/)
  const build = 'mkdir -p /tmp/b && nydus-image create -t directory -D /tmp/b -B /tmp/boot /usr/bin >&2'
  assert.match(await node.cri.exec(id, `${build} && nydus-image check /tmp/boot`), /RAFS|version/i)
  await node.cri.removeAll()
  await isEmptied(node)
  await isStopped(node)
}

async function pushOwn(reference: string): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'node-own-image-'))
  try {
    const layout = await writeLayout(root, folder, 'own', 1)
    await pushLayout(layout.folder, reference)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

import { containerdRoot, missingIn, snippet } from '../containerd-config/index.ts'
import { Findings } from './finding.ts'
import { type NodeFacts, wantedOptions } from './node.ts'

const RESTART = 'systemctl restart containerd'

/** A check for each thing that containerd's configuration must say. */
const CHECKS = [
  ['proxy-plugin', 'containerd-plugin', 'containerd knows the snapshotter'],
  ['snapshotter', 'containerd-snapshotter', "Kubernetes' images are given to it"],
  ['annotations', 'containerd-annotations', 'containerd tells what is pulled'],
  ['rebase', 'containerd-rebase', 'no capability that hides the parents of layers'],
  ['exports', 'containerd-exports', 'containerd 2 knows its directory, and passes labels'],
  ['unpack', 'containerd-unpack', 'the transfer service unpacks for it'],
] as const

export function checkContainerdConfig(facts: NodeFacts): Findings[] {
  const { containerd, version } = facts
  if (containerd === undefined) return []
  const options = wantedOptions(facts)
  const missing = missingIn(containerd, options)
  const isNew = (version?.major ?? options.containerd.major) >= 2
  return CHECKS.filter(([id]) => isNew || (id !== 'exports' && id !== 'unpack')).map(([id, check, right]) => {
    const found = new Findings(check)
    const lack = missing.find((one) => one.id === id)
    if (lack === undefined) found.ok(right)
    else {
      const lines = lack.edits.map(snippet).join('\n')
      const problem = {
        what: `${lack.why} (${containerd.path})`,
        fix: `In ${containerd.path}:\n${lines}\nthen: ${RESTART}     # or: nydus-setup --restart`,
      }
      // Without these two most things work.
      if (id === 'exports' || id === 'unpack') found.warn(problem)
      else found.fail(problem)
    }
    return found
  })
}

/** containerd 1.x looks for the image file system at a path made of its own root and the snapshotter's name. */
export function checkImageFileSystem(facts: NodeFacts): Findings {
  const found = new Findings('image-file-system')
  const { containerd, settings } = facts
  const { name, containerd: version } = wantedOptions(facts)
  if (containerd === undefined || version.major >= 2) {
    found.ok('containerd is told where the image file system is')
    return found
  }
  const expected = `${containerdRoot(containerd)}/io.containerd.snapshotter.v1.${name}`
  if (expected === settings.root) found.ok(`containerd finds the image file system at ${expected}`)
  else
    found.warn({
      what: `containerd 1.x looks for the image file system at ${expected}, and it is at ${settings.root}: kubelet reports "failed to get imageFs stats"`,
      fix: `In the configuration of the snapshotter: root = "${expected}" (for a new root), or: ln -s ${settings.root} ${expected}`,
    })
  return found
}

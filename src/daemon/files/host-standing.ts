import { closeFd, ERRNO, getXattrOf, type HostStat, statFd } from '../../kernel/index.ts'
import type { HostNode, HostNodes } from './host-nodes.ts'
import type { HostOpen } from './host-open.ts'
import { NOTHING, type NotedTree } from './noted-changes.ts'

/** A shared directory as its noted changes see it: what has a name is told by the host's number and birth. */
export class HostStanding implements NotedTree<HostNode> {
  readonly #nodes: HostNodes
  readonly #open: HostOpen

  constructor(nodes: HostNodes, open: HostOpen) {
    this.#nodes = nodes
    this.#open = open
  }

  get stat(): HostStat {
    return this.#nodes.files.stat
  }

  get(node: number): HostNode | undefined {
    return this.#nodes.get(node)
  }

  standing(directory: HostNode, name: Uint8Array): readonly Uint8Array[] | undefined {
    const fd = this.made(directory, name)
    if (fd < 0) return fd === -ERRNO.ENOENT ? [NOTHING] : undefined
    closeFd(fd)
    return [this.stat.identity]
  }

  made(directory: HostNode, name: Uint8Array): number {
    return this.#nodes.files.lookup(directory.file, name)
  }

  isMade(node: HostNode): boolean {
    return node.file.key === this.stat.key
  }

  attribute(node: HostNode, name: Uint8Array, into: Uint8Array): number {
    const fd = this.#nodes.files.fd(node.file)
    return fd < 0 ? fd : getXattrOf(fd, name, into)
  }

  fd(handle: number): number | undefined {
    return this.#open.fd(handle)
  }

  size(_node: HostNode, handle: number): number | undefined {
    const fd = this.#open.fd(handle)
    return fd === undefined || statFd(fd, this.stat) < 0 ? undefined : this.stat.size
  }
}

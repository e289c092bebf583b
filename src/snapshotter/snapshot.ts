/** What containerd calls a snapshot. Source: containerd's core/snapshots; the interface is told in docs/containerd-nydus-grpc.md. */

/** An active snapshot is written to, a view is only read, a committed one is a layer that others stand on. */
export type SnapshotKind = 'active' | 'view' | 'committed'

/** Keys and values come from images and clients: hostile until checked, hence no plain object. */
export type Labels = ReadonlyMap<string, string>

/** What a snapshot's own files take: bytes of the disk, and inodes. */
export interface Usage {
  readonly bytes: number
  readonly inodes: number
}

export interface Snapshot {
  /** Never given twice; its directory is `snapshots/<id>`. */
  readonly id: number
  /** The key of an active snapshot or view, the name of a committed one. They share one namespace. */
  readonly key: string
  /** The name of the committed snapshot it stands on; '' for none. */
  readonly parent: string
  readonly kind: SnapshotKind
  readonly labels: Labels
  /** Nanoseconds since 1970. */
  readonly createdAt: bigint
  readonly updatedAt: bigint
  /** Of a committed one, as measured once; undefined for others, and while it is not known. */
  readonly usage: Usage | undefined
}

/** One call of mount(2), as containerd's mount package reads it. */
export interface Mount {
  readonly type: string
  readonly source: string
  /** Relative to the mount point of the whole; '' for the mount point itself. */
  readonly target: string
  readonly options: readonly string[]
}

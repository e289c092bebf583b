import type { ImageRequest } from './daemons/index.ts'
import type { IdMapping } from './id-mapping.ts'
import type { KernelImages } from './kernel-images/index.ts'
import type { Log } from './log/index.ts'
import type { Settings } from './settings/index.ts'
import type { Labels, Usage } from './snapshot.ts'
import type { Stargz } from './stargz/index.ts'
import type { SnapshotStore } from './store/index.ts'
import type { Tarfs } from './tarfs/index.ts'

export interface ReadyImage {
  readonly mountpoint: string
  readonly bootstrap: string
  /** nydusd's configuration of it, which has logins in it. */
  readonly configPath: string
}

/** Images that nydusd serves; `Images` of `daemons/`. */
export interface ServedImages {
  /** Resolves when the image's files can be read. The same image again is the same mount; a lost one is made anew. Who gives up does not end it for others. */
  ensure(request: ImageRequest, signal: AbortSignal): Promise<ReadyImage>
  find(snapshotId: number, idMapping?: IdMapping): ReadyImage | undefined
  /** Of one mapping, or all that was mounted of the snapshot. */
  release(snapshotId: number, idMapping?: IdMapping): Promise<void>
  /** What a blob takes in the cache. */
  cacheUsage(blobId: string): Promise<Usage>
  /** Removes cached blobs that no image uses and `roots`, digests, does not name when it is their turn. */
  collectCache(
    roots: () => Iterable<string>,
    signal: AbortSignal,
  ): Promise<{ readonly removed: number; readonly skipped: string | undefined }>
  stop(): Promise<void>
}

/** Another form of an image. */
export interface FoundBootstrap {
  /** Where it was found. */
  readonly kind: 'index' | 'referrer'
  /** To be kept on the layer, so that nobody has to ask again. */
  readonly labels: Labels
}

/** Finds Nydus forms of images by their labels; `Detector` of `detect/`. */
export interface BootstrapDetector<Found extends FoundBootstrap = FoundBootstrap> {
  find(labels: Labels, signal: AbortSignal): Promise<Found | undefined>
  /** Puts the bootstrap into a snapshot's directory, whole or not at all; gives its path. */
  fetch(found: Found, directory: string, signal: AbortSignal): Promise<string>
}

export type Operation = 'PREPARE' | 'MOUNTS' | 'REMOVE' | 'CLEANUP'

export interface SnapshotterParts {
  readonly settings: Pick<
    Settings,
    'daemonMode' | 'daemon' | 'snapshot' | 'cache' | 'referrerDetect' | 'indexDetect' | 'stargz' | 'tarfs'
  >
  readonly store: SnapshotStore
  readonly images: ServedImages
  /** Where one of the two detections is configured. */
  readonly detector: BootstrapDetector | undefined
  /** Where images run from their tars. */
  readonly tarfs: Tarfs | undefined
  /** Where the kernel shows images that are all in the cache. */
  readonly kernelImages:
    | Pick<KernelImages, 'lend' | 'lentTo' | 'begin' | 'giveBack' | 'forget' | 'blobs' | 'directoriesOf' | 'stop'>
    | undefined
  /** Where eStargz layers are read as they are. */
  readonly stargz: Stargz | undefined
  readonly log: Log
  /** Told when an operation ended, for metrics. */
  readonly observe: (operation: Operation, elapsedMs: number) => void
}

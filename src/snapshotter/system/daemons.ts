import type { DaemonMetrics, DaemonStatus } from '../daemons/index.ts'
import type { LentImage } from '../kernel-images/index.ts'

/** Images that the kernel shows by itself; `KernelImages` of `kernel-images/`. */
export interface ShownImages {
  list(): readonly LentImage[]
}

/** What the system API and the metrics need of images and daemons; `Images` of `daemons/`. */
export interface ServedImages {
  list(): readonly DaemonStatus[]
  metrics(signal: AbortSignal): Promise<readonly DaemonMetrics[]>
  /** Replaces the program of all daemons while they serve. */
  upgrade(request: { readonly nydusdPath: string }): Promise<void>
  /** The file that a daemon's image is configured by; undefined when there is none. */
  configOf(daemonId: string): string | undefined
  readonly prefetchLists: { put(image: string, list: string): void }
}

import type { RawDaemonMetrics } from './daemon-json.ts'

/** A nydusd, as it is shown. */
export interface DaemonStatus {
  readonly id: string
  readonly pid: number
  readonly state: string
  /** '' before it said. */
  readonly version: string
  readonly apiSocket: string
  readonly supervisorPath: string
  readonly reference: number
  readonly mountpoint: string
  readonly startupCpuPercent: number
  readonly memoryRssKib: number
  readonly instances: ReadonlyArray<{
    readonly key: string
    readonly snapshotId: string
    readonly snapshotDirectory: string
    readonly mountpoint: string
    readonly reference: string
  }>
}

/** What the system API and the metrics need of images and daemons. */
export interface ServedImages {
  list(): readonly DaemonStatus[]
  metrics(signal: AbortSignal): Promise<ReadonlyArray<RawDaemonMetrics & { readonly id: string }>>
  /** Replaces the program of all daemons while they serve. */
  upgrade(request: { readonly nydusdPath: string }): Promise<void>
  /** The file that a daemon's image is configured by; undefined when there is none. */
  configOf(daemonId: string): string | undefined
  readonly prefetchLists: { put(image: string, list: string): void }
}

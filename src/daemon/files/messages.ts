import type { MessagePort } from 'node:worker_threads'
import type { LateRead } from '../transports/fuse-handler.ts'
import type { LowerImage } from './overlay-lower.ts'

/** A request of the kernel, passed on by the serving thread that read it. `asRoot`: it looks up the mount's root, from the directory above. */
export interface ForwardedRequest {
  readonly slot: number
  readonly asRoot: boolean
  readonly bytes: Uint8Array
}

/** What the files thread is started with. */
export interface FilesWorkerData {
  /** Of the process. */
  readonly build: string
  readonly counters: Float64Array<SharedArrayBuffer>
}

/** A directory of the host. `journal`: where its files in hand are written, if anywhere; `isRestored`: another process wrote there, until the session's device comes. */
export interface SharedFiles {
  readonly kind: 'directory'
  readonly directory: string
  readonly journal: string | undefined
  readonly isRestored: boolean
}

/** An image with an upper directory over it; `journal` and `isRestored` as of a directory. */
export interface OverlayFiles {
  readonly kind: 'overlay'
  readonly image: LowerImage
  readonly upper: string
  readonly work: string
  readonly journal: string | undefined
  readonly isRestored: boolean
}

/** What is mounted in a slot of the files thread. */
export type AttachedFiles = SharedFiles | OverlayFiles

/** What the main thread tells the files thread. Those with an id are answered by 'done'. */
export type FilesNews =
  | { readonly kind: 'port'; readonly port: MessagePort }
  | { readonly kind: 'device'; readonly fd: number }
  | { readonly kind: 'own-device'; readonly device: string }
  | { readonly kind: 'attach'; readonly id: number; readonly slot: number; readonly what: AttachedFiles }
  | { readonly kind: 'fetched'; readonly id: number; readonly bytes: Uint8Array | undefined }
  | { readonly kind: 'detach'; readonly id: number; readonly slot: number }
  | { readonly kind: 'end'; readonly isLeft: boolean }

/** What the files thread tells. */
export type FilesWorkerMessage =
  | { readonly kind: 'ready' }
  | { readonly kind: 'done'; readonly id: number; readonly error: string | undefined }
  | { readonly kind: 'error'; readonly text: string }
  | { readonly kind: 'late'; readonly read: LateRead }
  | {
      readonly kind: 'fetch'
      readonly id: number
      readonly slot: number
      readonly ino: number
      readonly offset: number
      readonly count: number
    }

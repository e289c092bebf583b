import type { MessagePort } from 'node:worker_threads'

/** A request of the kernel, passed on by the serving thread that read it. `asRoot`: it looks up the mount's root, from the directory above. */
export interface ForwardedRequest {
  readonly slot: number
  readonly asRoot: boolean
  readonly bytes: Uint8Array
}

/** What the main thread tells the files thread. Those with an id are answered by 'done'. */
export type FilesNews =
  | { readonly kind: 'port'; readonly port: MessagePort }
  | { readonly kind: 'device'; readonly fd: number }
  | { readonly kind: 'own-device'; readonly device: string }
  | { readonly kind: 'attach'; readonly id: number; readonly slot: number; readonly directory: string }
  | { readonly kind: 'detach'; readonly id: number; readonly slot: number }
  | { readonly kind: 'end' }

/** What the files thread tells. */
export type FilesWorkerMessage =
  | { readonly kind: 'done'; readonly id: number; readonly error: string | undefined }
  | { readonly kind: 'error'; readonly text: string }

/** How one read is done. */
export interface ReadOptions {
  readonly signal: AbortSignal
  /** Told as bytes arrive: `into[0..filled)` is there. Lets the first chunk of a joined range be decoded before the last has come. */
  readonly onFilled?: (filled: number) => void
  /** Whether a reader waits (the default) or nobody does yet. Proxies are told, and try less hard for the latter. */
  readonly purpose?: 'demand' | 'prefetch'
  /** Past what a proxy distributes: the last resort of `withRetry`. */
  readonly fromSource?: boolean
  /** What came of this range was wrong: it comes from the source, past mirrors and proxies, and a blob that is a file is looked for anew. */
  readonly afterWrongBytes?: boolean
}

/**
 * Bytes of one blob as it is stored, wherever that is. Any number of reads at once. A read fills `into` or throws BackendError; a short
 * answer is 'TRUNCATED'. `compressedOffset` counts in the blob as stored. After `close`, reads throw 'CLOSED'.
 */
export interface BlobReader {
  /** Length of the blob as stored; asks the backend when it is not known yet. */
  size(signal: AbortSignal): Promise<number>
  read(compressedOffset: number, into: Uint8Array, options: ReadOptions): Promise<void>
  close(): Promise<void>
}

/** A place where blobs are kept. */
export interface Backend {
  readonly name: string
  open(blobId: string): Promise<BlobReader>
  close(): Promise<void>
}

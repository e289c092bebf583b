/** What an entry is. Contiguous files and those of unknown types count as `file`, as POSIX asks. */
export type TarType = 'file' | 'hardlink' | 'symlink' | 'char' | 'block' | 'directory' | 'fifo'

/** A run of data in a sparse file; what lies between runs is zeros. */
export interface SparseRun {
  readonly offset: number
  readonly length: number
}

/** An extended attribute; names and values are bytes. */
export interface TarXattr {
  readonly name: Uint8Array
  readonly value: Uint8Array
}

/** One member of an archive, its extensions applied. Names are bytes as they stand there: nothing is normalised, nothing is decoded. */
export interface TarEntry {
  readonly path: Uint8Array
  readonly type: TarType
  /** Target of a symlink, or path of the member that a hard link shares; empty otherwise. */
  readonly link: Uint8Array
  /** Permission bits, 12 bits. */
  readonly mode: number
  readonly uid: number
  readonly gid: number
  /** Bytes of content as a reader of the file sees it (a sparse file's full size); 0 for all but files. */
  readonly size: number
  /** Seconds since 1970, may be negative; and 0 … 999,999,999 nanoseconds after it. */
  readonly mtimeSeconds: number
  readonly mtimeNanoseconds: number
  readonly devMajor: number
  readonly devMinor: number
  readonly xattrs: readonly TarXattr[]
  /** Data runs of a sparse file, in order; undefined when the content is stored whole. */
  readonly sparse: readonly SparseRun[] | undefined
  /** Where the entry's own header starts in the archive. */
  readonly archiveOffset: number
}

/** What no real archive exceeds; a reader refuses more with 'LIMIT' before it allocates. */
export interface TarLimits {
  /** A PAX header's or GNU long name's body, bytes. */
  readonly extensionBytes: number
  readonly pathBytes: number
  readonly sparseRuns: number
  /** Zeros after an archive, or between two. */
  readonly zeroBytes: number
}

export const DEFAULT_LIMITS: TarLimits = {
  extensionBytes: 4 * 1024 * 1024,
  pathBytes: 64 * 1024,
  sparseRuns: 1_000_000,
  zeroBytes: 64 * 1024 * 1024,
}

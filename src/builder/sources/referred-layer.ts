import type { ZranSlicer } from '../../blob/index.ts'
import type { ByteInput } from '../../tar/index.ts'
import type { Content } from '../content.ts'
import type { ArchivedContent } from './tar.ts'

/** A layer that stays as it is and is referred to, while it is read. */
export interface ReferredLayer {
  /** The archive in it. */
  readonly archive: AsyncIterable<Uint8Array> | ByteInput
  /** Of a gzip layer: what cuts it into slices; undefined for a plain archive, in which chunks lie as they are. */
  readonly slicer: ZranSlicer | undefined
  /** SHA-256 and bytes of the file; after `finish`. */
  readonly id: string
  readonly size: number
  /** A file of the archive, with the places of its chunks. Throws BuilderError 'UNSUPPORTED' for one that cannot be referred to. */
  referred(content: ArchivedContent): Content
  /** Reads the file to its end. */
  finish(): Promise<void>
  /** To be called in any case. */
  end(): Promise<void>
}

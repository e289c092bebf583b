import { constants } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { errnoName } from './errors.ts'

/** A file that the deduplication database named, open for reading. */
export class CopyFile {
  readonly #file: FileHandle

  private constructor(file: FileHandle) {
    this.#file = file
  }

  /** Undefined when there is no regular file that can be read. */
  static async open(path: string): Promise<CopyFile | undefined> {
    let file: FileHandle | undefined
    try {
      file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW)
      if ((await file.stat()).isFile()) return new CopyFile(file)
    } catch (error) {
      if (errnoName(error) === undefined) throw error
    }
    await file?.close()
    return undefined
  }

  get fd(): number {
    return this.#file.fd
  }

  /** Fills `into`; false when the file ends before, or cannot be read there. */
  async read(offset: number, into: Uint8Array): Promise<boolean> {
    try {
      for (let done = 0; done < into.length; ) {
        const { bytesRead } = await this.#file.read(into, done, into.length - done, offset + done)
        if (bytesRead === 0) return false
        done += bytesRead
      }
      return true
    } catch (error) {
      if (errnoName(error) === undefined) throw error
      return false
    }
  }

  close(): Promise<void> {
    return this.#file.close()
  }
}

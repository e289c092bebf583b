/** Which build of the program a process or thread runs. A room of its own beside the kernel's: who starts a thread ahead loads nothing else. */

/** Put in by scripts/build.ts; source files that run as they are have none. */
declare const BUILD_ID: string | undefined

/** The same in all files of one build. */
export const BUILD = typeof BUILD_ID === 'string' ? BUILD_ID : 'source'

/**
 * For the start of a thread: its file may have been replaced since the process began, and threads of two versions misunderstand each other. Throws when `ofProcess`, the
 * {@link BUILD} of whoever started it, is another.
 */
export function checkBuild(ofProcess: unknown): void {
  if (ofProcess !== BUILD)
    throw new Error(`this thread's file is of build ${BUILD}, and the process of build ${String(ofProcess)}`)
}

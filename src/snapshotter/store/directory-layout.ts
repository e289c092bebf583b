/** Names and modes in the directory of a snapshot. Source: docs/formats/snapshot-store.md, "Directories". */

/** Names of directories that are being made begin so. */
export const UNFINISHED = 'new-'
/** Of the directory itself. */
export const MODE = 0o700
/** What a snapshot adds to those it stands on. */
export const [FILES, FILES_MODE] = ['fs', 0o755]
/** Overlayfs's own, of an active snapshot. */
export const [WORK, WORK_MODE] = ['work', 0o711]

/** The groups of checks, in the order in which they run. */
export type CheckRule = 'manifest' | 'bootstrap' | 'filesystem'

/** One thing that is wrong. */
export interface ImageFinding {
  readonly image: 'source' | 'target'
  readonly rule: CheckRule
  /** A path in the image, a layer, a blob, or the reference. */
  readonly object: string
  readonly message: string
}

declare const verified: unique symbol

/**
 * Bytes of one whole chunk whose digest was compared with the image's. Only `verifyChunk` here and the engine's decode pool
 * (on its worker's receipt) make one; the cache takes nothing else. A cast anywhere else is a bug.
 */
export type VerifiedChunk = Uint8Array & { readonly [verified]: true }

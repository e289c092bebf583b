/** eStargz images, read as they are. */
export type { StargzParts } from './stargz.ts'
export { Stargz } from './stargz.ts'

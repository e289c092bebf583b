/** Images that run from the tars of their layers. */
export type { TarfsImage, TarfsParts } from './tarfs.ts'
export { Tarfs } from './tarfs.ts'

/** Images that run from the tars of their layers. */
export type { ConvertedLayer, TarfsImage, TarfsParts } from './tarfs.ts'
export { Tarfs } from './tarfs.ts'

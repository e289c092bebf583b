/** The graph driver: Docker's storage up to 23, as a plugin of dockerd. Layers as overlayfs has them; Nydus images by nydusd. */
export type { PluginOptions } from './plugin.ts'
export { GraphDriverPlugin } from './plugin.ts'

/** Mirrors of registries: containerd's `hosts.toml` files, as keys of nydusd's configuration. */
export type { MirrorKeys, MirrorsParts } from './mirrors.ts'
export { Mirrors } from './mirrors.ts'

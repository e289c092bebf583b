/** containerd's configuration: what it must say for this snapshotter, and edits of it that leave all else as it was written. */
export {
  CONTAINERD_CONFIG,
  type ContainerdConfig,
  containerdAddress,
  containerdRoot,
  readContainerdConfig,
} from './containerd-config.ts'
export { type Edit, editToml, parsedToml, snippet, valueAt, withoutElement, withoutKey } from './edit-toml.ts'
export { type Missing, missingIn, newVersion, type WantedOptions } from './wanted.ts'

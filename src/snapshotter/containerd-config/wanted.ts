import { isDeepStrictEqual } from 'node:util'
import { type ContainerdConfig, imagesTable, runtimesTable } from './containerd-config.ts'
import { type Edit, type Element, elementsOf, isTable, type Setting, valueAt } from './edit-toml.ts'

export interface WantedOptions {
  /** The major and minor number of containerd: 1.6, 2.1. */
  readonly containerd: { readonly major: number; readonly minor: number }
  /** Of the snapshotter. */
  readonly address: string
  readonly root: string
  /** As containerd knows it. */
  readonly name: string
  /** `amd64`, as platforms call it. */
  readonly architecture: string
}

/** Something that containerd's configuration must say, and does not. */
export interface Missing {
  readonly id: 'proxy-plugin' | 'snapshotter' | 'annotations' | 'exports' | 'unpack' | 'rebase'
  readonly why: string
  readonly edits: readonly Edit[]
}

const TRANSFER = ['plugins', 'io.containerd.transfer.v1.local', 'unpack_config']

/** The form that a new file should have. */
export function newVersion({ major }: WantedOptions['containerd']): number {
  return major >= 2 ? 3 : 2
}

/** Everything that is missing; edits are those of the file's own form. */
export function missingIn(config: ContainerdConfig, options: WantedOptions): Missing[] {
  const version = config.text === undefined ? newVersion(options.containerd) : config.version
  const plugin = ['proxy_plugins', options.name]
  const images = imagesTable(version)
  const isOurs = isDefaultOrRuntimes(config, version, options.name)
  const found: Missing[] = []
  const want = (id: Missing['id'], why: string, edits: readonly Edit[]): void => {
    const open = edits.filter((edit) => !isThere(config, edit))
    if (open.length > 0) found.push({ id, why, edits: open })
  }
  want('proxy-plugin', `containerd does not know of a snapshotter "${options.name}" at ${options.address}`, [
    setting([...plugin, 'type'], 'snapshot'),
    setting([...plugin, 'address'], options.address),
  ])
  if (!isOurs)
    want('snapshotter', `Kubernetes' images are not given to "${options.name}"`, [
      setting([...images, 'snapshotter'], options.name),
    ])
  if (!passesLabelsByTransfer(config, options))
    want('annotations', 'containerd does not tell what is pulled: images would be unpacked, or could not be found', [
      setting([...images, 'disable_snapshot_annotations'], false),
    ])
  const capabilities = valueAt(config.merged, [...plugin, 'capabilities'])
  if (Array.isArray(capabilities) && capabilities.includes('rebase'))
    found.push({
      id: 'rebase',
      why: 'the capability "rebase" makes containerd hide the parents of layers: lazy images cannot work so',
      edits: [
        setting(
          [...plugin, 'capabilities'],
          capabilities.filter((one): one is string => typeof one === 'string' && one !== 'rebase'),
        ),
      ],
    })
  if (options.containerd.major >= 2) wantOfContainerd2(config, options, want)
  return found
}

function wantOfContainerd2(
  config: ContainerdConfig,
  { name, root, architecture, containerd }: WantedOptions,
  want: (id: Missing['id'], why: string, edits: readonly Edit[]) => void,
): void {
  const exported = ['proxy_plugins', name, 'exports']
  const capabilities = ['proxy_plugins', name, 'capabilities']
  want('exports', 'containerd 2 cannot tell how full the image file system is, nor pass labels when ctr pulls', [
    ...(valueAt(config.merged, capabilities) === undefined ? [setting(capabilities, ['remap-ids'])] : []),
    setting([...exported, 'root'], root),
    setting([...exported, 'enable_remote_snapshot_annotations'], 'true'),
  ])
  if (containerd.major === 2 && containerd.minor === 0) return
  const platform = `linux/${architecture}`
  const entries = elementsOf(config.merged, TRANSFER)
  const has = (snapshotter: string): boolean =>
    entries.some((one) => isTable(one) && one['snapshotter'] === snapshotter)
  if (has(name)) return
  // The list replaces the one that is built in: without overlayfs in it others' pulls would not be unpacked.
  const overlay = { platform, snapshotter: 'overlayfs' }
  want(
    'unpack',
    `the transfer service does not unpack for "${name}": "ctr images pull --snapshotter ${name}" would fail`,
    [
      ...(entries.length === 0 ? [{ array: TRANSFER, element: overlay }] : []),
      { array: TRANSFER, element: { platform, snapshotter: name, differ: 'walking' } },
    ],
  )
}

function setting(path: readonly string[], value: Setting['value']): Setting {
  return { path, value }
}

/** Whether the snapshotter is that of all images, or of one runtime at least. */
function isDefaultOrRuntimes({ merged }: ContainerdConfig, version: number, name: string): boolean {
  if (valueAt(merged, [...imagesTable(version), 'snapshotter']) === name) return true
  const runtimes = valueAt(merged, runtimesTable(version))
  return (
    isTable(runtimes) && Object.values(runtimes).some((runtime) => isTable(runtime) && runtime['snapshotter'] === name)
  )
}

/** From 2.1 on CRI pulls by the transfer service, which passes labels where the plugin asks for them. */
function passesLabelsByTransfer({ merged }: ContainerdConfig, { containerd, name }: WantedOptions): boolean {
  if (containerd.major < 2 || (containerd.major === 2 && containerd.minor === 0)) return false
  const asks = valueAt(merged, ['proxy_plugins', name, 'exports', 'enable_remote_snapshot_annotations']) === 'true'
  return asks && elementsOf(merged, TRANSFER).some((one) => isTable(one) && one['snapshotter'] === name)
}

function isThere({ merged }: ContainerdConfig, edit: Edit): boolean {
  if (isElement(edit))
    return elementsOf(merged, edit.array).some((one) => isTable(one) && isDeepStrictEqual({ ...one }, edit.element))
  return isDeepStrictEqual(valueAt(merged, edit.path), edit.value)
}

function isElement(edit: Edit): edit is Element {
  return 'array' in edit
}

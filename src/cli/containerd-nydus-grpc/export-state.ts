import { resolve } from 'node:path'
import { type Flags, readSettings } from '../../snapshotter/settings/index.ts'
import { exportState as writeState } from '../../snapshotter/store/index.ts'
import type { Output } from '../output.ts'

export interface ExportFlags {
  readonly config?: string
  readonly root?: string
  readonly json?: boolean
}

/** Gives the root of a stopped snapshotter back to upstream's program, and tells what was written. */
export function exportState({ config, root, json }: ExportFlags, output: Output): void {
  const flags: Flags = root === undefined ? {} : { root: resolve(root) }
  const exported = writeState(readSettings(config, flags).root)
  if (json === true) return output.json(exported)
  const { snapshots, daemons, instances, written, kept } = exported
  output.line(`${snapshots} snapshots, ${daemons} daemons and ${instances} mounted images are in`)
  for (const path of written) output.line(`  ${path}`)
  output.line(`Start upstream's containerd-nydus-grpc on this root now; this one would go on from there too.`)
  output.line(`What it had is kept in ${kept}`)
}

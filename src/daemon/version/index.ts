/** What a daemon and its client say of their version. */
import { BUILD } from '../../kernel/build/index.ts'
import manifest from '../../../package.json' with { type: 'json' }

/** What clients ask a daemon for; `git_commit` is compared by upstream's snapshotter to see whether a daemon is outdated. */
export interface VersionInfo {
  readonly package_ver: string
  readonly git_commit: string
  readonly build_time: string
  readonly profile: string
  readonly rustc: string
}

let known: VersionInfo | undefined

/** Version of this package. `rustc`, whose name is part of the API, tells the runtime. */
export function versionInfo(): VersionInfo {
  const { version } = manifest
  known ??= {
    package_ver: `v${version}`,
    // of the build too: of a package that is built again, daemons that run are outdated
    git_commit: BUILD === 'source' ? `nydus-node-${version}` : `nydus-node-${version}-${BUILD}`,
    build_time: 'unknown',
    profile: 'release',
    rustc: `node ${process.version}`,
  }
  return known
}

/** What a daemon and its client say of their version. */
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
    git_commit: `nydus-node-${version}`,
    build_time: 'unknown',
    profile: 'release',
    rustc: `node ${process.version}`,
  }
  return known
}

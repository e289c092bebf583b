/** A Debian package: an `ar` archive of `debian-binary`, `control.tar.gz` and `data.tar.gz`. Source: deb(5). */
import { createReadStream, createWriteStream, mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { NYDUSD_CONFIG, SERVICE, serviceUnit, snapshotterConfig } from '../../src/snapshotter/node-setup/index.ts'
import { MTIME_SECONDS, writeTarGz } from './archive.ts'
import { architecture, HOME, installedTree, readManifest, type TreeEntry, withFolders } from './tree.ts'

const CONFIGURATIONS = ['/etc/nydus/snapshotter.toml', '/etc/nydus/nydusd-config.json']

/** Writes the package of this checkout; gives its path. */
export async function writeDeb(root: string, folder: string, level = 6): Promise<string> {
  const manifest = readManifest(root)
  const scratch = mkdtempSync(join(tmpdir(), 'deb-'))
  try {
    const data = join(scratch, 'data.tar.gz')
    const { contentBytes } = await writeTarGz(withFolders(packageTree(root)), data, { prefix: './', level })
    const control = join(scratch, 'control.tar.gz')
    await writeTarGz(controlFiles(manifest.version, manifest.description, Math.ceil(contentBytes / 1024)), control, {
      prefix: './',
      level,
    })
    const path = join(folder, `nydus-node_${manifest.version}_${architecture()}.deb`)
    await writeAr(path, [
      ['debian-binary', Buffer.from('2.0\n')],
      ['control.tar.gz', control],
      ['data.tar.gz', data],
    ])
    return path
  } finally {
    rmSync(scratch, { recursive: true })
  }
}

function packageTree(root: string): TreeEntry[] {
  const text = (path: string, content: string, mode = 0o644): TreeEntry => ({ path, mode, content: { text: content } })
  return [
    ...installedTree(root),
    text(`/lib/systemd/system/${SERVICE}`, serviceUnit('/usr/bin/containerd-nydus-grpc')),
    text(CONFIGURATIONS[0] ?? '', snapshotterConfig()),
    text(CONFIGURATIONS[1] ?? '', NYDUSD_CONFIG),
    { path: '/usr/share/doc/nydus-node/copyright', mode: 0o644, content: { file: join(root, 'LICENSE') } },
    {
      path: '/usr/share/doc/nydus-node/THIRD-PARTY-NOTICES',
      mode: 0o777,
      content: { link: '../../../lib/nydus-node/dist/THIRD-PARTY-NOTICES' },
    },
  ]
}

function controlFiles(version: string, description: string, kib: number): TreeEntry[] {
  const file = (path: string, text: string, mode = 0o644): TreeEntry => ({ path, mode, content: { text } })
  return [
    { path: '/', mode: 0o755, content: 'directory' },
    file(
      '/control',
      `Package: nydus-node
Version: ${version}
Architecture: ${architecture()}
Maintainer: Nydus for Node <nydus-node@localhost>
Installed-Size: ${kib}
Depends: libc6 (>= 2.28), libstdc++6
Recommends: containerd, fuse3
Section: admin
Priority: optional
Description: ${description.split(':')[0] ?? description}
 The snapshotter for containerd, the daemon that mounts images, and the tools
 that build and convert them. After the installation, nydus-setup configures
 the node, and containerd-nydus-grpc doctor looks at it.
`,
    ),
    file('/conffiles', `${CONFIGURATIONS.join('\n')}\n`),
    // A new version is taken up at once; containers go on, since nydusds outlive the snapshotter.
    file(
      '/postinst',
      `#!/bin/sh
set -e
if [ "$1" = configure ] && [ -d /run/systemd/system ]; then
  systemctl daemon-reload
  systemctl try-restart ${SERVICE} || true
fi
`,
      0o755,
    ),
    file(
      '/prerm',
      `#!/bin/sh
set -e
if [ "$1" = remove ]; then
  if [ -e /etc/nydus/nydus-setup.json ]; then nydus-setup --undo --yes || true; fi
  if [ -d /run/systemd/system ]; then systemctl disable --now ${SERVICE} || true; fi
fi
`,
      0o755,
    ),
    file(
      '/postrm',
      `#!/bin/sh
set -e
rm -rf ${HOME}/dist/.cache
rmdir ${HOME}/dist ${HOME} 2>/dev/null || true
if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
`,
      0o755,
    ),
  ]
}

/** Members of an `ar` archive have a header of 60 bytes and begin at even offsets. */
async function writeAr(
  path: string,
  members: ReadonlyArray<readonly [name: string, content: Buffer | string]>,
): Promise<void> {
  await pipeline(async function* () {
    yield Buffer.from('!<arch>\n')
    for (const [name, content] of members) {
      const size = typeof content === 'string' ? statSync(content).size : content.length
      yield Buffer.from(
        `${name.padEnd(16)}${String(MTIME_SECONDS).padEnd(12)}${'0'.padEnd(6)}${'0'.padEnd(6)}${'100644'.padEnd(8)}${String(size).padEnd(10)}\`\n`,
      )
      if (typeof content === 'string') yield* createReadStream(content)
      else yield content
      if (size % 2 === 1) yield Buffer.from('\n')
    }
  }, createWriteStream(path))
}

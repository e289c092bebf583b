import { chmodSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

const ANSWER =
  '{"cniVersion":"0.4.0","interfaces":[{"name":"eth0","sandbox":"\'"$CNI_NETNS"\'"}],"ips":[{"version":"4","address":"192.0.2.2/24","interface":0}]}'
const PLUGIN = `#!/bin/sh
case $CNI_COMMAND in
  VERSION) echo '{"cniVersion":"0.4.0","supportedVersions":["0.3.1","0.4.0"]}' ;;
  ADD) echo '${ANSWER}' ;;
esac
`

/** A network of pods that has an address and carries nothing: plugins in `cni`, its configuration in `networks`. */
export function writePodNetwork(path: string): void {
  for (const name of ['nothing', 'loopback']) {
    const at = join(path, 'cni', name)
    writeFileSync(at, PLUGIN)
    chmodSync(at, 0o755)
  }
  const list = { cniVersion: '0.4.0', name: 'nothing', plugins: [{ type: 'nothing' }] }
  writeFileSync(join(path, 'networks/nothing.conflist'), JSON.stringify(list))
}

import type { Document } from './schema.ts'

/** Something about keys that stand together. */
export interface Remark {
  readonly key: string
  /** Begins after the name of the key; says what to write. */
  readonly text: string
}

/** Keys that contradict each other: nothing may start. */
export function contradictions(of: Document): Remark[] {
  const { auth } = of.remote
  const found: Remark[] = []
  const claim = (isWrong: boolean, key: string, text: string): void => void (isWrong && found.push({ key, text }))
  claim(
    auth.enable_cri_keychain && auth.enable_kubeconfig_keychain,
    'remote.auth.enable_kubeconfig_keychain',
    'cannot be used together with "remote.auth.enable_cri_keychain"; leave one of them false',
  )
  claim(
    of.image.validate_signature && of.image.public_key_file === '',
    'image.public_key_file',
    'is missing, and "image.validate_signature" needs it; write public_key_file = "/etc/nydus/image-key.pem", or validate_signature = false',
  )
  for (const [key, example] of [
    ['credential_provider_config', '/etc/kubernetes/credential-providers.yaml'],
    ['credential_provider_bin_dir', '/usr/libexec/kubernetes/credential-providers'],
  ] as const)
    claim(
      auth.enable_kubelet_credential_providers && auth[key] === '',
      `remote.auth.${key}`,
      `is missing, and "remote.auth.enable_kubelet_credential_providers" needs it; write ${key} = ${JSON.stringify(example)} as the kubelet has it`,
    )
  claim(
    of.system.enable && of.system.address === of.address,
    'system.address',
    'is the socket of containerd ("address") too; give it a name of its own',
  )
  claim(
    of.daemon.startup_timeout < 100,
    'daemon.startup_timeout',
    'is too short for any nydusd; write startup_timeout = "30s"',
  )
  claim(
    of.daemon.hang_timeout > 0 && of.daemon.hang_timeout < 5000,
    'daemon.hang_timeout',
    'is too short to tell a nydusd that hangs from a busy one; write hang_timeout = "1m", or "0s" for never',
  )
  return found
}

/** Keys without effect, and what else is most likely not meant so. */
export function oddities(of: Document): Remark[] {
  const { system, experimental, image } = of
  const { auth } = of.remote
  const found: Remark[] = []
  const idle = (isIdle: boolean, key: string, without: string): void =>
    void (isIdle && found.push({ key, text: `has no effect without ${without}` }))
  idle(!system.enable && system.debug.pprof_address !== '', 'system.debug.pprof_address', 'enable = true in [system]')
  idle(!of.cgroup.enable && Number.isFinite(of.cgroup.memory_limit), 'cgroup.memory_limit', 'enable = true in [cgroup]')
  idle(!image.validate_signature && image.public_key_file !== '', 'image.public_key_file', 'validate_signature = true')
  idle(
    !auth.enable_kubeconfig_keychain && auth.kubeconfig_path !== '',
    'remote.auth.kubeconfig_path',
    'enable_kubeconfig_keychain = true',
  )
  idle(
    !auth.enable_cri_keychain && auth.image_service_address !== '',
    'remote.auth.image_service_address',
    'enable_cri_keychain = true',
  )
  for (const key of ['credential_provider_config', 'credential_provider_bin_dir'] as const)
    idle(
      !auth.enable_kubelet_credential_providers && auth[key] !== '',
      `remote.auth.${key}`,
      'enable_kubelet_credential_providers = true',
    )
  const { tarfs } = experimental
  for (const key of ['mount_tarfs_on_host', 'tarfs_hint', 'export_mode'] as const)
    idle(
      !tarfs.enable_tarfs && !['', 'none', false].includes(tarfs[key]),
      `experimental.tarfs.${key}`,
      'enable_tarfs = true',
    )
  if (experimental.enable_backend_source)
    found.push({
      key: 'experimental.enable_backend_source',
      text: 'has no effect: nydusd has no option for it, and logins are in its configuration, which only root can read',
    })
  if (of.remote.convert_vpc_registry) found.push({ key: 'remote.convert_vpc_registry', text: 'has no effect' })
  if (of.daemon.fs_driver === 'fscache')
    found.push({
      key: 'daemon.fs_driver',
      text: '"fscache" is taken as "fusedev" with daemon_mode = "shared": kernels have no fscache on demand any more',
    })
  return found
}

import { fstatSync } from 'node:fs'
import { KernelError } from '../../errors.ts'
import { check } from '../../syscall.ts'
import { calls } from '../calls.ts'

/** A part of a virtual machine's memory, in a file of its monitor. */
export interface MemoryRegion {
  /** Address as the guest sees it, and as the monitor does. */
  readonly guest: number
  readonly user: number
  readonly size: number
  /** Where it begins in the file. */
  readonly fileOffset: number
  readonly fd: number
}

interface Mapped extends MemoryRegion {
  /** Where the mapping begins here, and where the region does. */
  readonly mapping: number
  readonly address: number
}

const PROT_READ_WRITE = 3
const MAP_SHARED_NORESERVE = 1 | 0x4000
const EFAULT = 14

/** The memory of a virtual machine, mapped here. Addresses come from the guest: each is checked before it is used. */
export class GuestMemory {
  readonly #regions: readonly Mapped[]

  /** The descriptors stay the caller's. Throws KernelError; then nothing is mapped. */
  constructor(regions: readonly MemoryRegion[]) {
    const mapped: Mapped[] = []
    this.#regions = mapped
    try {
      for (const region of regions) {
        const { fd, fileOffset, size } = region
        checkFile(region)
        const mapping = check(
          calls().mmap(0, fileOffset + size, PROT_READ_WRITE, MAP_SHARED_NORESERVE, fd, 0),
          'mmap',
          'the memory of a virtual machine cannot be mapped',
        )
        mapped.push({ ...region, mapping, address: mapping + fileOffset })
      }
    } catch (error) {
      this.close()
      throw error
    }
  }

  /** Our address of what the monitor has at its own. Throws KernelError 'EFAULT' unless all of it is in one region. */
  ofMonitor(user: number, length: number): number {
    const region = this.#regions.find((of) => user >= of.user && user + length <= of.user + of.size)
    if (region === undefined) throw outside(user)
    return region.address + user - region.user
  }

  /** Our address of what the guest has at its own, and how many bytes of `length` are in one piece there. Throws KernelError 'EFAULT'. */
  ofGuest(guest: number, length: number): { readonly address: number; readonly length: number } {
    const region = this.#regions.find((of) => guest >= of.guest && guest < of.guest + of.size)
    if (region === undefined) throw outside(guest)
    return {
      address: region.address + guest - region.guest,
      length: Math.min(length, region.guest + region.size - guest),
    }
  }

  /** Nothing of it may be used any more. */
  close(): void {
    for (const { mapping, fileOffset, size } of this.#regions) calls().munmap(mapping, fileOffset + size)
  }
}

/** Whoever touches a mapping behind the end of its file is killed. */
function checkFile({ fd, fileOffset, size }: MemoryRegion): void {
  const file = fstatSync(fd)
  if (file.isFile() && fileOffset + size > file.size)
    throw new KernelError('vhost', EFAULT, `a region of ${size} bytes goes beyond its file, which has ${file.size}`)
}

function outside(address: number): KernelError {
  return new KernelError('vhost', EFAULT, `0x${address.toString(16)} lies outside of the virtual machine's memory`)
}

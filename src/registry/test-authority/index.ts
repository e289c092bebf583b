/** For tests of all rooms: certificates, made by openssl. */
export { makeAuthority, skipWithoutOpenssl } from './authority.ts'

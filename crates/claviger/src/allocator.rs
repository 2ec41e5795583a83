//! jemalloc in place of the system's allocator. Its settings stand in .cargo/config.toml; why, in docs/decisions/041.

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

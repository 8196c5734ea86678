"""Running it: shards in this process or on workers, and what interrupts them."""

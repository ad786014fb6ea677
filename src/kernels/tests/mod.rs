mod math;
mod packed;
mod product;

mod math;
mod product;
